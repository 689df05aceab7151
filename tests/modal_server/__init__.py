"""Modal on loopback: speaks to the real client, really runs the functions, and can misbehave.

cloud     starts and stops everything, and is what tests look at
rpc       gRPC plumbing: tokens, idempotency keys, faults
faults    what goes wrong, how often
apps      apps, images, mounts, secrets, environments, billing
functions what is deployed, and with which options
calls     inputs from spawn to result, preemption and crashes included
container one process with its own copy of a volume
processes start that process and wait for its end
runner    the program in it
storage   the committed content of volumes, in blocks
volumes   the RPCs of volumes
blocks    HTTP: blocks, blobs, and the commits that containers ask for
logs      lines of the containers
"""

from modal_server.cloud import Cloud

__all__ = ["Cloud"]
