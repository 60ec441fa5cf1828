//! A picture of the demo's hosts.

/// A picture of the hosts: the parts of each, and how its VMs are attached.
pub(crate) fn topology(software: &[usize]) -> String {
    let parts = |host| match software.contains(&host) {
        true => ("(culvertd alone)", "TAP"),
        false => ("(board, firmware, culvertd)", "VF"),
    };
    let ((one, a), (two, b)) = (parts(0), parts(1));
    format!(
        "  host1 {one:49}host2 {two}
  PA 192.168.1.10, .11                                   PA 192.168.2.20, .21
    contoso-sql  10.1.1.11 {a:>3} --+                   +-- {b:3} 10.1.1.12  contoso-web   VSID 5001
                                 +-- router (kernel) +
    fabrikam-sql 10.1.1.11 {a:>3} --+                   +-- {b:3} 10.1.1.12  fabrikam-web  VSID 6001"
    )
}
