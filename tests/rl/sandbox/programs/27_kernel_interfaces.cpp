// {"verdict": ["DENIED"]}
#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
int main() {
  const long calls[] = {425 /* io_uring_setup */, SYS_bpf, SYS_userfaultfd, SYS_perf_event_open, SYS_keyctl, SYS_add_key,
                        SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_reboot, SYS_swapon,
                        SYS_acct, SYS_iopl, SYS_ioperm, SYS_syslog, SYS_quotactl, SYS_fanotify_init, SYS_seccomp,
                        SYS_process_vm_readv, SYS_process_vm_writev, SYS_open_by_handle_at, SYS_name_to_handle_at,
                        SYS_modify_ldt, SYS_vhangup, SYS_lookup_dcookie, 428, 429, 430, 431, 432, 433, 438, 442, 444};
  int open = 0;
  for (long call : calls) {
    errno = 0;
    const long result = syscall(call, 0L, 0L, 0L, 0L, 0L, 0L);
    if (result >= 0) ++open;
    std::printf("%ld: %ld %d\n", call, result, errno);
  }
  std::printf("%d worked\n", open);
}
