"""From results to training data: which tasks a policy can learn from, and why the others were left out."""
