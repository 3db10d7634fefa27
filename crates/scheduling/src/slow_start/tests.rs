use super::*;

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn ramping() -> SlowStart {
    let mut state = SlowStart::New;
    state.begin(true, at(0));
    state
}

#[test]
fn one_that_is_new_among_others_gets_one_more_for_each_answer() {
    let mut state = ramping();
    for answers in 0..20 {
        let window = 2 + answers;
        assert!(!state.limits(window - 1, Some(30), at(1)), "{answers}");
        assert!(state.limits(window, Some(30), at(1)), "{answers}");
        state.served();
    }
}

#[test]
fn it_is_done_once_it_may_have_more_than_any_other() {
    let mut state = ramping();
    for (answers, done) in [(0, false), (1, false), (2, false), (3, true)] {
        assert_eq!(!state.limits(99, Some(4), at(1)), done, "{answers}");
        state.served();
    }
    assert_eq!(state, SlowStart::Done);
}

#[test]
fn an_idle_pool_does_not_end_it_before_the_first_answer() {
    let mut state = ramping();
    assert!(state.limits(2, Some(0), at(1)));
    state.served();
    assert!(!state.limits(2, Some(0), at(1)));
    assert_eq!(state, SlowStart::Done);
}

#[test]
fn it_ends_after_a_while_whatever_comes() {
    for most in [None, Some(50)] {
        let mut state = ramping();
        assert!(state.limits(2, most, at(9)));
        assert!(!state.limits(2, most, at(10)));
        assert!(state.is_over());
    }
}

#[test]
fn those_that_begin_together_are_not_limited_and_are_known_by_their_first_answer() {
    let mut state = SlowStart::New;
    state.begin(false, at(0));
    assert!(state.is_over() && state != SlowStart::Done);
    assert!(!state.limits(99, Some(0), at(0)));
    state.served();
    assert_eq!(state, SlowStart::Done);
}

#[test]
fn only_the_new_begin() {
    for before in [ramping(), SlowStart::Unproven, SlowStart::Done] {
        let mut state = before;
        state.begin(true, at(5));
        assert_eq!(state, before);
    }
}
