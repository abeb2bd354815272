"""Faults of processes: agents, shims and Consul agents are killed, stand still or are replaced."""

from __future__ import annotations

from faults.scene import HOSTS, Scene

# As the role does it: a venv beside the one that runs, the link led to it in one step, and a restart.
UPGRADE = """
set -e; cd /opt/outrider
old=$(readlink venv) new=/opt/outrider/venvs/upgrade-$$
cp -al $old $new; ln -sfn $new venv.new; mv -T venv.new venv
systemctl restart outriderd
case $old in */upgrade-*) rm -r $old;; esac
"""


def kill_holder(scene: Scene) -> None:
    """holder killed"""
    instance, host = scene.holder()
    _signal(scene, host, f"outrider-agent@{instance}", "KILL")


def stop_holder(scene: Scene) -> None:
    """holder stands still, for good"""
    instance, host = scene.holder()
    _signal(scene, host, f"outrider-agent@{instance}", "STOP")


def kill_shim(scene: Scene) -> None:
    """shim killed"""
    _signal(scene, scene.holder()[1], "outriderd", "KILL")


def freeze_shim(scene: Scene) -> None:
    """shim stands still for 4 s"""
    host = scene.holder()[1]
    with scene.until_over(4.0, lambda: _signal(scene, host, "outriderd", "CONT")):
        _signal(scene, host, "outriderd", "STOP")


def restart_shim(scene: Scene) -> None:
    """shim restarted"""
    scene.shell(scene.holder()[1], "systemctl restart outriderd")


def upgrade_shims(scene: Scene) -> None:
    """every shim upgraded, one after the other"""
    for host in scene.fleet.lab.machines():
        scene.shell(host, UPGRADE)


def kill_consul(scene: Scene) -> None:
    """Consul agent killed"""
    _signal(scene, scene.host(), "consul", "KILL")


def freeze_consul(scene: Scene) -> None:
    """Consul agent beside a holder stands still for 5 s"""
    _freeze_consuls(scene, [scene.holder()[1]], 5.0)


def kill_leader(scene: Scene) -> None:
    """Consul's leader killed"""
    _signal(scene, scene.leader(), "consul", "KILL")


def freeze_leader(scene: Scene) -> None:
    """Consul's leader stands still for 8 s"""
    _freeze_consuls(scene, [scene.leader()], 8.0)


def lose_server(scene: Scene) -> None:
    """Consul server stopped for 8 s"""
    host = scene.host()
    with scene.consul_alone, scene.until_over(8.0, lambda: scene.shell(host, "systemctl start consul")):
        scene.shell(host, "systemctl stop consul")


def lose_quorum(scene: Scene) -> None:
    """two of three Consul servers stand still for 60 s"""
    _freeze_consuls(scene, scene.rng.sample(HOSTS, 2), scene.lasting(60.0))


def _freeze_consuls(scene: Scene, hosts: list[str], seconds: float) -> None:
    with scene.until_over(seconds, lambda: [_signal(scene, host, "consul", "CONT") for host in hosts]):
        for host in hosts:
            _signal(scene, host, "consul", "STOP")


def _signal(scene: Scene, host: str, unit: str, signal: str) -> None:
    # By its unit: the process id of one that is just being started is 0, which means whoever sends the signal.
    scene.shell(host, f"systemctl kill --kill-who=main --signal={signal} {unit}")
