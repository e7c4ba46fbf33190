"""What the processes of a distributed training agree on before PyTorch connects them.

Lightning starts the other processes of one host itself. Where torchrun or SLURM's srun starts all
of them, none knows of another yet.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mbv2det.errors import ConfigError

_WAIT = timedelta(minutes=5)  # hosts do not start at the same moment


@dataclass(frozen=True)
class LaunchedJob:
    """The processes that a launcher started, and the place where they leave messages.

    Attributes:
        rank: Number of this process among those of all hosts.
        world_size: Number of processes.
        address: Address of the first host.
        port: Port of the messages.
        is_served: Whether the launcher serves the messages; otherwise the first process does.
        attempt: Tells the messages of a restarted job from those before.
    """

    rank: int
    world_size: int
    address: str
    port: int
    is_served: bool
    attempt: str = ""

    def share(self, name: str, value: str | None) -> str:
        """Returns the value that the first process has; waits until all have it.

        Args:
            name: Name of the value.
            value: The value, in the first process; None in the others.

        Raises:
            ConfigError: If the processes do not find each other within five minutes.
        """
        key = f"mbv2det/{self.attempt}/{name}"
        is_first = self.rank == 0
        serves = is_first and not self.is_served
        try:
            store = TCPStore(self.address, self.port, None, serves, _WAIT)
            if is_first:
                assert value is not None
                store.set(key, value)
                store.wait([f"{key}/{rank}" for rank in range(1, self.world_size)])
                return value
            shared = store.get(key).decode()
            store.set(f"{key}/{self.rank}", "")
            return shared
        except RuntimeError as error:  # of PyTorch: none of the sockets' own classes
            raise ConfigError(
                f"process {self.rank} of {self.world_size}: expected the others at {self.address}, "
                f"port {self.port}, within {_WAIT.seconds} s ({str(error).splitlines()[0]})"
            ) from None


def launched_job() -> LaunchedJob | None:
    """Returns the job that torchrun or srun started this process for; None if neither did.

    Raises:
        ConfigError: In a job of SLURM for several tasks, if srun did not start this process.
    """
    if dist.is_available() and dist.is_torchelastic_launched():
        return LaunchedJob(
            int(os.environ["RANK"]),
            int(os.environ["WORLD_SIZE"]),
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_served=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
        )
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if SLURMEnvironment.detect() and tasks > 1:
        if "SLURM_STEP_ID" not in os.environ:
            raise ConfigError(
                f"SLURM_NTASKS: expected srun to start all {tasks} tasks of the job, got a process "
                "that it did not start; write `srun mbv2det train ...`, or ask for one task"
            )
        slurm = SLURMEnvironment()
        # The next port: the first is that of PyTorch's connections.
        port = slurm.main_port + 1
        return LaunchedJob(
            slurm.global_rank(), slurm.world_size(), slurm.main_address, port, is_served=False
        )
    return None
