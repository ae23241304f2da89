"""The system calls that the default seccomp profile does not speak of, for profiles that do.

A table in the form of `seccomp_numbers`, nothing else; `OTHERS` are names that only machines without a table here have.
Source: libseccomp's src/syscalls.csv for Linux 7.1.
"""

from __future__ import annotations

from builder.sandbox.seccomp_numbers import in_column

_TABLE = """
add_key:248:286:217:309 afs_syscall:183:137:-:- bdflush:-:134:-:134 break:-:17:-:- create_module:174:127:-:-
file_getattr:468:468:468:468 file_setattr:469:469:469:469 ftime:-:35:-:- get_kernel_syms:177:130:-:-
getpmsg:181:188:-:- get_tls:-:-:-:983046 gtty:-:32:-:- idle:-:112:-:- io_uring_enter:426:426:426:426
io_uring_register:427:427:427:427 io_uring_setup:425:425:425:425 kexec_file_load:320:-:294:401
kexec_load:246:283:104:347 keyctl:250:288:219:311 listns:470:470:470:470 lock:-:53:-:- migrate_pages:256:294:238:400
move_pages:279:317:239:344 mpx:-:56:-:- nfsservctl:180:169:42:169 nice:-:34:-:34 oldfstat:-:28:-:- oldlstat:-:84:-:-
oldolduname:-:59:-:- oldstat:-:18:-:- olduname:-:109:-:- open_tree_attr:467:467:467:467 pciconfig_iobase:-:-:-:271
pciconfig_read:-:-:-:272 pciconfig_write:-:-:-:273 pivot_root:155:217:41:218 prof:-:44:-:- profil:-:98:-:-
putpmsg:182:189:-:- query_module:178:167:-:- readdir:-:89:-:- request_key:249:287:218:310
rseq_slice_yield:471:471:471:471 security:185:-:-:- sgetmask:-:68:-:- sigaction:-:67:-:67 signal:-:48:-:-
sigpending:-:73:-:73 sigsuspend:-:72:-:72 ssetmask:-:69:-:- stty:-:31:-:- swapoff:168:115:225:115 swapon:167:87:224:87
_sysctl:156:149:-:149 sysfs:139:135:-:135 tuxcall:184:-:-:- ulimit:-:58:-:- uprobe:336:-:-:- uselib:134:86:-:86
userfaultfd:323:374:282:388 usr26:-:-:-:983043 usr32:-:-:-:983044 ustat:136:62:-:62 vm86:-:166:-:- vm86old:-:113:-:-
vserver:236:273:-:313
"""

_OTHERS = """
atomic_barrier atomic_cmpxchg_32 cachectl getpagesize multiplexer rtas s390_guarded_storage s390_pci_mmio_read
s390_pci_mmio_write s390_runtime_instr s390_sthyi spu_create spu_run subpage_prot swapcontext switch_endian
sync_file_range2 syscall sys_debug_setcontext sysmips timerfd
"""

OTHERS = frozenset(_OTHERS.split())


def more_numbers_of(table: str) -> dict[str, int]:
    """Number of each call that the machine's table has, without those of the default profile."""
    return in_column(_TABLE, table)
