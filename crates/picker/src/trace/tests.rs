use proptest::prelude::*;

use super::*;

const ALL: Sampling = Sampling { parent_based: true, ratio: 1.0 };
const NONE: Sampling = Sampling { parent_based: true, ratio: 0.0 };
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const RANDOM: (u128, u64) = (0xabc, 0xdef);

fn begin(traceparent: &str, sampling: Sampling) -> TraceContext {
    TraceContext::begin(Some(traceparent), Some("vendor=1"), sampling, RANDOM)
}

#[test]
fn a_callers_trace_is_continued_under_a_span_of_our_own() {
    let context = begin(PARENT, NONE);
    assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!(context.parent_id, Some(0x00f0_67aa_0ba9_02b7));
    assert_eq!(context.state.as_deref(), Some("vendor=1"));
    assert_eq!(
        context.traceparent(),
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000def-01",
        "the caller has kept its span, so ours is kept, whatever the ratio"
    );
}

#[test]
fn what_cannot_be_read_begins_a_trace() {
    let broken = [
        "",
        "00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];
    for header in broken {
        let context = begin(header, ALL);
        assert_eq!((context.trace_id, context.parent_id), (0xabc, None), "{header}");
        assert_eq!(context.state, None, "a state without its trace says nothing: {header}");
        assert!(context.is_sampled(), "{header}");
    }
}

#[test]
fn a_later_versions_beginning_is_read() {
    let context = begin("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more", ALL);
    assert_eq!(context.parent_id, Some(0x00f0_67aa_0ba9_02b7));
    assert!(!context.is_sampled(), "the caller has not kept its span");
}

#[test]
fn without_parents_the_ratio_decides() {
    let of = |ratio, trace| Sampling { parent_based: false, ratio }.keeps(trace, Some(1));
    let middle = 1_u128 << 55;
    assert!(of(0.5, middle - 1) && !of(0.5, middle));
    assert!(of(1.0, u128::MAX) && !of(0.0, 0));
}

proptest! {
    #[test]
    fn what_is_told_on_reads_as_the_same_trace(trace in 1_u128.., span in 1_u64.., ratio in 0.0..=1.0) {
        let sampling = Sampling { parent_based: true, ratio };
        let first = TraceContext::begin(None, None, sampling, (trace, span));
        let next = TraceContext::begin(Some(&first.traceparent()), None, NONE, RANDOM);
        prop_assert_eq!((next.trace_id, next.parent_id), (trace, Some(span)));
        prop_assert_eq!(next.is_sampled(), first.is_sampled());
    }

    #[test]
    fn no_header_breaks_it(header in "\\PC*") {
        let context = TraceContext::begin(Some(&header), Some(&header), ALL, RANDOM);
        prop_assert_eq!(context.traceparent().len(), 55);
    }
}
