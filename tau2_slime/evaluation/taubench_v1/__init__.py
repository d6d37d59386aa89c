"""Recorded tau-bench v1 results, re-scored as τ²: v1's JSON list of `EnvRunResult` -> τ² tasks, trajectories and rewards.

The v1 conversation is taken as it is. Its tool calls are run again in τ²'s environment of the same domain, whose answers
take the place of v1's (databases and texts have changed), and `world.scoring` scores the result. No model is asked.

Where v1 and τ² differ, τ²'s way holds:

- τ²'s tools have no ``think``; such calls change nothing and are left out, thought and all;
- τ² looks for what the agent had to say (v1's ``outputs``) in text beside a tool call, too; v1 only where nothing was
  called;
- of ``act`` and ``react`` agents, which write their calls as text, only the call or what the user was shown is kept.

v1 ends a run when its user says ``###STOP###`` (here ``user_stop``), when the agent transfers to a human
(``agent_stop``), or after the agent's 30th message, unscored (``max_steps``). A run that raised has no trajectory: no
reward, and no failure either.
"""
