"""The embedded defaults: a policy that speaks sglang's protocol and plays gold actions, a scripted user, a small tokenizer.

With them the whole path (first prompt, HTTP, tokens, tools, user, official reward) runs on any laptop without a GPU, an API
key or a network. Training never uses them.

Example (one turn of the embedded policy, asked as slime's rollout asks an sglang server):

    >>> import asyncio
    >>> from transformers import AutoTokenizer
    >>> from tau2_slime.local.policy_server import PolicyServer
    >>> from tau2_slime.local.tokenizer import local_checkpoint
    >>> from tau2_slime.tokens.engine import SglangEngine
    >>> checkpoint = local_checkpoint()
    >>> tokenizer = AutoTokenizer.from_pretrained(str(checkpoint))
    >>> prompt = tokenizer.encode("<|im_start|>user\\nHello!<|im_end|>\\n<|im_start|>assistant\\n")
    >>> async def next_turn():
    ...     async with PolicyServer(checkpoint) as server:
    ...         return await SglangEngine(server.url).generate(prompt, {"max_new_tokens": 100}, routing_key="")
    >>> tokenizer.decode(asyncio.run(next_turn()).ids)
    'Could you please tell me your case reference?<|im_end|>'
"""
