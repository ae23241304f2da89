"""Run a program as an ordinary user who owns the current directory: `python handover.py USER PROGRAM [ARGUMENT…]`.

Everything in the directory is given to the user as it is, with its mode, times and attributes, as if he had made it.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys


def give(path: str, uid: int, gid: int) -> None:
    """Change the owner of one file and nothing else."""
    status = os.lstat(path)
    is_link = stat.S_ISLNK(status.st_mode)
    attributes = {} if is_link else {name: os.getxattr(path, name) for name in os.listxattr(path)}
    os.lchown(path, uid, gid)
    if not is_link:
        os.chmod(path, stat.S_IMODE(status.st_mode))
    for name, value in attributes.items():
        os.setxattr(path, name, value)


def give_tree(top: str, uid: int, gid: int) -> None:
    """Change the owner of a directory and of everything in it."""
    give(top, uid, gid)
    for where, directories, files in os.walk(os.fsencode(top)):
        for name in directories + files:
            give(os.fsdecode(os.path.join(where, name)), uid, gid)


def become(user: pwd.struct_passwd) -> None:
    """Give up root for good."""
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def main() -> None:
    user = pwd.getpwnam(sys.argv[1])
    give_tree(os.getcwd(), user.pw_uid, user.pw_gid)
    become(user)
    os.execvpe(sys.argv[2], sys.argv[2:], {**os.environ, "HOME": user.pw_dir, "USER": user.pw_name})


if __name__ == "__main__":
    main()
