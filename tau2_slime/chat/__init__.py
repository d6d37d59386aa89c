"""What a chat-completions server says, read once for everyone who asks one: the user, the policy, the judge."""
