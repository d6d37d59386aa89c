"""One sampler a domain: customers by capacity, intents, gold calls, and the sentences for them."""
