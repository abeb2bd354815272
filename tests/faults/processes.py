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
    scene.shell(host, f"kill -9 $(systemctl show -P MainPID outrider-agent@{instance})")


def stop_holder(scene: Scene) -> None:
    """holder stands still, for good"""
    instance, host = scene.holder()
    scene.shell(host, f"kill -STOP $(systemctl show -P MainPID outrider-agent@{instance})")


def kill_shim(scene: Scene) -> None:
    """shim killed"""
    scene.shell(scene.holder()[1], "systemctl kill --kill-who=main --signal=KILL outriderd")


def freeze_shim(scene: Scene) -> None:
    """shim stands still for 4 s"""
    host = scene.holder()[1]
    with scene.until_over(4.0, lambda: scene.shell(host, "kill -CONT $(systemctl show -P MainPID outriderd)")):
        scene.shell(host, "kill -STOP $(systemctl show -P MainPID outriderd)")


def restart_shim(scene: Scene) -> None:
    """shim restarted"""
    scene.shell(scene.holder()[1], "systemctl restart outriderd")


def upgrade_shims(scene: Scene) -> None:
    """every shim upgraded, one after the other"""
    for host in scene.fleet.lab.machines():
        scene.shell(host, UPGRADE)


def kill_consul(scene: Scene) -> None:
    """Consul agent killed"""
    scene.shell(scene.host(), "systemctl kill --kill-who=main --signal=KILL consul")


def freeze_consul(scene: Scene) -> None:
    """Consul agent beside a holder stands still for 5 s"""
    _freeze_consuls(scene, [scene.holder()[1]], 5.0)


def kill_leader(scene: Scene) -> None:
    """Consul's leader killed"""
    scene.shell(scene.leader(), "systemctl kill --kill-who=main --signal=KILL consul")


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
    with scene.until_over(seconds, lambda: [scene.shell(host, "kill -CONT $(pidof consul)") for host in hosts]):
        for host in hosts:
            scene.shell(host, "kill -STOP $(pidof consul)")
