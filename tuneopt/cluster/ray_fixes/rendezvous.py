"""Where the ranks of a trial meet: on loopback where they share a machine, else on the address that Ray gave rank 0's.

Ray Train lets torch open the store that ranks meet at, and torch listens on every network interface of the machine: who
reaches it can read and change what ranks say there. Here rank 0 opens the socket, bound to one address, and hands it
over. What gloo and NCCL listen on themselves follows the same choice.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch import config as of_ray
from ray.train.torch.config import _TorchBackend

LOOPBACK = "127.0.0.1"

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables that name the interface of gloo and of NCCL; what a user has set stays."""


@dataclass
class BoundTorchConfig(TorchConfig):  # type: ignore[misc]
    """A `TorchConfig` whose ranks meet at a single address."""

    init_method: str = "tcp"

    @property
    def backend_cls(self) -> Any:
        """Who sets the process group up."""
        return _BoundBackend


class _BoundBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Let every rank join by `join`, in place of Ray's function of the same arguments."""
        alone = len(set(worker_group.execute(_machine))) == 1
        before = of_ray._setup_torch_process_group
        of_ray._setup_torch_process_group = join_on_loopback if alone else join
        try:
            super().on_start(worker_group, backend_config)
        finally:
            of_ray._setup_torch_process_group = before


def _machine() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def join(
    backend: str, world_rank: int, world_size: int, init_method: str, timeout_s: int = 1800, *, loopback: bool = False
) -> None:
    """Join the process group at ``init_method`` (``tcp://host:port``), or at that port of loopback."""
    from torch import distributed as dist

    host, _, port = init_method.removeprefix("tcp://").rpartition(":")
    host, patience = host.strip("[]"), timedelta(seconds=timeout_s)
    if loopback:
        host = LOOPBACK
        for name in INTERFACES:
            os.environ.setdefault(name, "lo")
    listening = None
    if world_rank == 0:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, int(port)), family=family).detach()  # torch closes it
    store = dist.TCPStore(  # type: ignore[attr-defined]  # torch does not list it
        host, int(port), world_size, world_rank == 0, patience, master_listen_fd=listening
    )
    dist.init_process_group(backend, store=store, rank=world_rank, world_size=world_size, timeout=patience)


def join_on_loopback(**settings: Any) -> None:
    """Join as `join` does, at the port of loopback. A function of its own: Ray sends it to ranks by its name."""
    join(**settings, loopback=True)
