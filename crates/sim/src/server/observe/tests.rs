use super::*;
use crate::{Server, SimConfig};

/// A timer may fire when another fault has just taken its fault's place.
#[tokio::test]
async fn only_the_fault_whose_time_is_over_ends() {
    let server = Server::bind(SimConfig::fast(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let handle = server.handle();
    handle.set_fault("stall:1".parse().unwrap());
    let number = handle.0.watch.conditions().borrow().number;
    handle.set_fault(Fault::Unhealthy);
    handle.heal(number);
    assert_eq!(handle.fault(), Fault::Unhealthy);
    handle.heal(number + 1);
    assert_eq!(handle.fault(), Fault::None);
}
