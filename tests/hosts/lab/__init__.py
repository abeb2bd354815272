"""The lab: real Debian hosts (systemd-nspawn, systemd, sshd) on a bridge of their own, made and destroyed at will."""
