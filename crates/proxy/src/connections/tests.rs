//! Settings of sockets.

use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn a_peer_that_vanishes_is_noticed_while_it_owes_something_and_while_it_does_not() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let socket = SockRef::from(&stream);
    assert_eq!((socket.keepalive().unwrap(), socket.tcp_user_timeout().unwrap()), (false, None));
    keep_alive(&stream, Duration::ZERO);
    assert!(socket.keepalive().unwrap());
    let probed = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
    let idle = socket.tcp_keepalive_time().unwrap() + probed;
    assert_eq!((idle, socket.tcp_user_timeout().unwrap()), (GONE_AFTER, Some(GONE_AFTER)));
    // Who may take nothing for longer is not gone before.
    keep_alive(&stream, 2 * GONE_AFTER);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(2 * GONE_AFTER));
}
