"""Tokens of one conversation: what the server samples, what the chat template adds, and nothing tokenised twice.

Read first: `ledger` (the tokens of a trajectory), `engine` (the client that samples), `template.chat_delta` (the first
prompt, and what is appended between two turns). `calls` reads tool calls out of the sampled text; `families` is the table of
model families. `replay` keeps what a trainer replays beside the tokens.

One turn of a conversation. The tokenizer is ``AutoTokenizer.from_pretrained("Qwen/Qwen3-4B-Instruct-2507")``, and the list
``turn`` stands for what a server sampled: it spells the answer letter by letter, as no tokenizer would.

>>> from tau2_slime.tokens.ledger import TokenLedger
>>> from tau2_slime.tokens.template.chat_delta import ChatDelta
>>> chat = ChatDelta.calibrate(tokenizer)  # proves the chat template usable, or says why it is not
>>> asked = [{"role": "user", "content": "Who are you?"}]
>>> ledger = TokenLedger(chat.first_prompt(asked))
>>> turn = [id for letter in "Qwen." for id in chat.template.encode(letter)] + [chat.template.token_id("<|im_end|>")]
>>> ledger.append_sampled(turn, log_probs=[-0.1] * len(turn))

The user answers. The delta is the template's own text from the end of the turn to the next generation prompt:

>>> delta = chat.between(asked, {"role": "assistant", "content": "Qwen."}, [{"role": "user", "content": "Thanks!"}])
>>> delta.text
'<|im_end|>\\n<|im_start|>user\\nThanks!<|im_end|>\\n<|im_start|>assistant\\n'

The server did sample ``<|im_end|>``, so joining appends the rest of the delta, with mask 0:

>>> chat.join(ledger, delta, finish="stop").kind
'closed'
>>> chat.template.decode(ledger.tokens[ledger.prompt_length :])
'Qwen.<|im_end|>\\n<|im_start|>user\\nThanks!<|im_end|>\\n<|im_start|>assistant\\n'
>>> len(turn), sum(ledger.loss_mask), len(delta.ids) - 1 == ledger.context_count
(6, 6, True)
"""
