"""What can be said of a task before a policy plays it: what it asks for, what it pays whom, whether order matters."""
