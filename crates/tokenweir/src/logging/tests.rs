use std::sync::Arc;

use super::*;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_tells_its_place_and_nothing_of_a_request() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    std::panic::set_hook(Box::new(tell_panic));
    tracing::subscriber::with_default(subscriber, || {
        let text = "a prompt, and sk-a-key";
        assert!(std::panic::catch_unwind(|| panic!("cut: {text}")).is_err());
        assert!(std::panic::catch_unwind(|| panic!("said in the code")).is_err());
    });
    drop(std::panic::take_hook());
    let logged = String::from_utf8(kept.0.lock().clone()).unwrap();
    assert_eq!(logged.matches("panicked: a bug").count(), 2, "{logged}");
    // A stack may be told, too.
    let places = logged.matches("place=\"crates/tokenweir/src/logging/tests.rs:").count();
    assert_eq!(places, 2, "{logged}");
    assert!(logged.contains("said in the code"), "{logged}");
    assert!(!logged.contains("a prompt") && !logged.contains("sk-a-key"), "{logged}");
}
