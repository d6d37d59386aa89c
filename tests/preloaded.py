"""What nearly every command imports; see `command_line`."""

import transformers

from tau2_slime.world import tau2_compat

tau2_compat.load()
assert transformers.AutoTokenizer  # transformers imports by name
