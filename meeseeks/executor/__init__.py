"""The process that owns the processes of a node's jobs, and the node's side of it.

handle     ExecutorHandle: what a node uses
spool      Spool: captured output, for both sides
program    the command that starts the process
__main__   the process: `lock` (one a state folder), `journal` (what a dead one left), `loop` (waiting),
           `executor` (orders and ends), `queues`, `leases`, `deadlines`, `family` (process trees), `spawn`, `brands`
"""
