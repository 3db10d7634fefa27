use super::*;

/// (text, pieces)
#[test]
fn text_is_cut_into_pieces_of_at_most_four_bytes() {
    let table: [(&str, &[&str]); 8] = [
        ("", &[]),
        ("Write as", &["Writ", "e", " as"]),
        ("a critic: San", &["a", " crit", "ic:", " San"]),
        (" lead", &[" lead"]),
        ("a  b", &["a", " ", " b"]),
        ("a\n\n\n\n\nb", &["a", "\n\n\n\n", "\n", "b"]),
        ("end ", &["end", " "]),
        ("longerword", &["long", "erwo", "rd"]),
    ];
    for (text, expected) in table {
        let expected: Vec<&[u8]> = expected.iter().map(|p| p.as_bytes()).collect();
        assert_eq!(pieces(text).collect::<Vec<_>>(), expected, "{text:?}");
    }
}

#[test]
fn the_pieces_are_the_text_whatever_it_is() {
    proptest::proptest!(|(text in "[a-z \\n\\tä日]{0,40}")| {
        let whole: Vec<u8> = pieces(&text).flatten().copied().collect();
        proptest::prop_assert_eq!(whole, text.as_bytes());
        proptest::prop_assert!(pieces(&text).all(|p| !p.is_empty() && p.len() <= PIECE_BYTES + 1));
    });
}

#[test]
fn an_answer_read_back_is_as_many_tokens_as_were_counted() {
    let origin = Origin::new(1, "tweet-summary", &tokenize("San Francisco"));
    let mut generated = Vec::new();
    origin.push_tokens(&mut generated, 300);
    let mut read = Vec::new();
    push_text(&mut read, &origin.text(300));
    assert_eq!(generated, read);
    assert_eq!(read.len(), 300);
}

#[test]
fn answers_differ_by_seed_model_and_prompt_and_by_nothing_else() {
    let text = |seed, model, prompt| Origin::new(seed, model, &tokenize(prompt)).text(20);
    assert_eq!(text(1, "m", "p"), text(1, "m", "p"));
    assert_ne!(text(1, "m", "p"), text(2, "m", "p"));
    assert_ne!(text(1, "m", "p"), text(1, "n", "p"));
    assert_ne!(text(1, "m", "p"), text(1, "m", "q"));
}

#[test]
fn only_full_blocks_have_content() {
    let tokens: Vec<u32> = (0..40).collect();
    assert_eq!(block_content(&tokens, 16).len(), 2);
    assert_eq!(block_content(&tokens[..16], 16), block_content(&tokens, 16)[..1]);
}
