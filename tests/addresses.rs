//! Addresses for servers that tests start, and for those that are not there.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

/// An address that nobody listens on. Below the ports that the system gives to outgoing
/// connections, so that nobody takes it while its node is down.
pub(crate) fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 97).expect("it is below 97") * 100;
    loop {
        let port = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if may_listen(address).is_ok() {
            return address.to_string();
        }
    }
}

/// Binds the address and does not listen. Another test may start a process just now, which holds a
/// copy of our socket until it runs its program: a copy that listened would keep the port from the
/// node, and one that is only bound does not, as all of them allow its use again (socket(7)).
fn may_listen(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}
