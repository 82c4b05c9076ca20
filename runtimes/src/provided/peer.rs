//! Whose a connection is. Any process of the machine can open one to a port of loopback; only those of the instance may
//! speak to its Runtime API.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
};

use bus::child;
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

/// Whether the other end of a connection to us is held by this process, or by one below it. Asks the kernel; blocks.
pub(super) fn is_below(leader: u32, theirs: SocketAddr, ours: SocketAddr) -> bool {
    // who may not look at a descriptor finds the socket in the table of all: that takes the kernel milliseconds
    let has = |process: Pid| holds(process, theirs, ours).or_else(|_| is_listed(process, theirs, ours));
    // one that has ended has none
    Pid::from_raw(leader as i32)
        .is_some_and(|leader| child::with_below(leader).any(|process| has(process).unwrap_or(false)))
}

/// Whether a process has a socket with these ends.
fn holds(process: Pid, theirs: SocketAddr, ours: SocketAddr) -> io::Result<bool> {
    let of = pidfd_open(process, PidfdFlags::empty())?;
    for (fd, _) in sockets(process)? {
        let lent = match pidfd_getfd(&of, fd, PidfdGetfdFlags::empty()) {
            Ok(lent) => TcpStream::from(lent),
            // closed just now
            Err(Errno::BADF) => continue,
            Err(error) => return Err(error.into()),
        };
        let is = |end: io::Result<SocketAddr>, address: SocketAddr| {
            end.is_ok_and(|end| end.port() == address.port() && end.ip().to_canonical() == address.ip().to_canonical())
        };
        if is(lent.local_addr(), theirs) && is(lent.peer_addr(), ours) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same by the table of all connections.
fn is_listed(process: Pid, theirs: SocketAddr, ours: SocketAddr) -> io::Result<bool> {
    let of_table = |table: &&str| socket(&fs::read_to_string(table).ok()?, theirs, ours);
    let Some(number) = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].iter().find_map(of_table) else {
        return Ok(false);
    };
    Ok(sockets(process)?.iter().any(|(_, socket)| *socket == number))
}

/// The sockets a process has open: descriptors and the kernel's numbers.
fn sockets(process: Pid) -> io::Result<Vec<(i32, u64)>> {
    let open = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero()))?;
    let socket = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let number = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, number))
    };
    Ok(open.filter_map(socket).collect())
}

/// The number of the socket with these ends, in a table of the kernel.
fn socket(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (end(local)?, end(remote)?);
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        // an address of version 6 that stands for one of version 4 ends with it
        let both = words.next()?.ends_with(&local) && words.next()?.ends_with(&remote);
        both.then(|| words.nth(6)?.parse().ok()).flatten()
    })
}

/// An address as the kernel writes it: a number in its own order, in hexadecimal.
fn end(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip().to_canonical() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_of_the_process_that_holds_it_and_of_those_above() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap();
        let client = TcpStream::connect(ours).unwrap();
        let theirs = client.local_addr().unwrap();
        let (own, elsewhere) = (std::process::id(), "127.0.0.1:1".parse().unwrap());
        assert!(is_below(own, theirs, ours));
        assert!(!is_below(own, theirs, elsewhere));
        let process = Pid::from_raw(own as i32).unwrap();
        for by in [holds, is_listed] {
            assert!(by(process, theirs, ours).unwrap());
            assert!(!by(process, theirs, elsewhere).unwrap());
        }
        let mut other = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        assert!(!is_below(other.id(), theirs, ours), "it holds none");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_socket_is_found_by_both_its_ends() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:A2C4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0\n   \
                     1: 0000000000000000FFFF00000100007F:A2C5 0000000000000000FFFF00000100007F:1F90 01 0:0 00:0 0 1000 0 77 1\n";
        let find = |local: &str, remote: &str| socket(table, local.parse().unwrap(), remote.parse().unwrap());
        assert_eq!(find("127.0.0.1:41668", "127.0.0.1:8080"), Some(4242));
        assert_eq!(find("127.0.0.1:41669", "127.0.0.1:8080"), Some(77));
        assert_eq!(find("127.0.0.1:41668", "127.0.0.1:8081"), None);
    }
}
