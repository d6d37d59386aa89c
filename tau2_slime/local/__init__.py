"""The embedded default: a policy that speaks sglang's protocol and plays gold actions, a scripted user, a small tokenizer.

With it the whole path (first prompt, HTTP, tokens, tools, user, official reward) runs on any laptop: no GPU, no API key,
no network. Nothing here is used in training.
"""
