"""python -m hosts.lab up | down | status | image | ssh HOST [COMMAND...]"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hosts.lab.image import image
from hosts.lab.lab import Lab, default_folder


def main() -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where the lab is kept")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make the hosts, untouched")
    up.add_argument("--hosts", type=int, default=4)
    commands.add_parser("down", help="remove every trace of them")
    commands.add_parser("status", help="which hosts run")
    commands.add_parser("image", help="build what the hosts start from, if it is missing or stale")
    ssh = commands.add_parser("ssh", help="a shell on a host, or one command")
    ssh.add_argument("host")
    ssh.add_argument("words", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if os.geteuid() != 0 and args.command in ("up", "down", "image"):
        print("lab: systemd-nspawn needs root", file=sys.stderr)
        return 2
    lab = Lab(args.folder)
    match args.command:
        case "up":
            lab.up(args.hosts)
        case "down":
            lab.down()
        case "image":
            image()
        case "status":
            print("\n".join(lab.status()))
        case "ssh":
            command = lab.ssh_command(args.host, *args.words)
            os.execvp(command[0], command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
