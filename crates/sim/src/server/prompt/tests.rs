use serde_json::json;

use super::*;
use crate::tokens::Origin;

fn chat_tokens(messages: &Value) -> Vec<u32> {
    chat(None, messages, "messages").unwrap()
}

#[test]
fn a_conversation_that_goes_on_begins_with_the_tokens_it_had() {
    let first = chat_tokens(&json!([{"role": "user", "content": "Hello"}]));
    let origin = Origin::new(0, "m", &first);
    let mut known = first.clone();
    origin.push_tokens(&mut known, 50);
    let second = chat_tokens(&json!([
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": origin.text(50)},
        {"role": "user", "content": "And?"},
    ]));
    assert_eq!(second[..known.len()], known);
}

#[test]
fn parts_and_text_are_the_same_prompt() {
    let text = chat_tokens(&json!([{"role": "user", "content": "Hello you"}]));
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "Hello you"}]}]);
    assert_eq!(chat_tokens(&parts), text);
}

#[test]
fn a_system_text_is_part_of_the_first_turn() {
    let with = chat_tokens(&json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]));
    let without = chat_tokens(&json!([{"role": "user", "content": "Hello"}]));
    assert!(with.len() > without.len());
    assert_eq!(with[0], BOS);
}

/// (prompt, number of tokens)
#[test]
fn completion_prompts_may_be_text_or_ids_or_one_of_them_in_a_list() {
    let table = [
        (json!("Write as"), 4),
        (json!([1, 2, 3]), 3),
        (json!(["Write as"]), 4),
        (json!([[1, 2, 3]]), 3),
    ];
    for (prompt, count) in table {
        assert_eq!(completion(&prompt).unwrap().len(), count, "{prompt}");
    }
    for prompt in [json!(["a", "b"]), json!([1, 999_999]), json!({}), json!(5), json!([{}])] {
        assert!(completion(&prompt).is_err(), "{prompt}");
    }
}
