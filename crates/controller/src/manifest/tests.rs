//! Broken manifests and what is said about each, in `testdata/broken.txt`.

use super::{Manifests, OBJECTS_MAX, PROBLEMS_MAX, read_text};
use crate::{Object, Problem, Severity, table::cases};

const BROKEN: &str = include_str!("../../testdata/broken.txt");

fn told(problem: &Problem) -> String {
    format!("{:?} {problem}", problem.severity)
}

fn check(text: &str, expected: &[&str]) -> Manifests {
    let manifests = read_text("x.yaml", text);
    let found: Vec<String> = manifests.problems.iter().map(told).collect();
    assert_eq!(found, expected, "{text}");
    manifests
}

#[test]
fn every_mistake_is_told_with_line_field_and_remedy() {
    let cases = cases(BROKEN);
    assert!(cases.len() >= 30);
    for case in cases {
        println!("{}", case.title);
        check(&case.text, &case.expected);
    }
}

#[test]
fn no_mistake_hides_another() {
    let cases = cases(BROKEN);
    for (first, second) in cases.iter().zip(cases.iter().skip(1)) {
        let text = format!("{}---\n{}", first.text, second.text);
        let shift = u32::try_from(first.text.lines().count() + 1).expect("short");
        let mut second = read_text("x.yaml", &second.text).problems;
        for problem in &mut second {
            problem.line = problem.line.map(|line| line + shift);
            // The one message that tells another line.
            if let Some((before, line)) = problem.message.split_once(" first at x.yaml:") {
                let line = line.parse::<u32>().expect("a line") + shift;
                problem.message = format!("{before} first at x.yaml:{line}");
            } else if let Some((before, line)) = problem.message.split_once(" first on line ") {
                let line = line.parse::<u32>().expect("a line") + shift;
                problem.message = format!("{before} first on line {line}");
            }
        }
        let all = read_text("x.yaml", &text).problems;
        for expected in read_text("x.yaml", &first.text).problems.iter().chain(&second) {
            assert!(all.contains(expected), "{text}\n{expected}\n{all:#?}");
        }
    }
}

#[test]
fn an_object_with_a_mistake_is_left_out_and_the_others_are_not() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 80}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {}\n";
    let expected =
        ["Error x.yaml:4: Service default/a: spec.ports: expected a list, found 80; begin each \
          item with \"- \""];
    let manifests = check(text, &expected);
    assert!(manifests.has_errors());
    let names: Vec<String> = manifests.objects.iter().map(Object::to_string).collect();
    assert_eq!(names, ["Service default/b"]);
    assert_eq!(manifests.objects[0].place.to_string(), "x.yaml:6");
}

#[test]
fn a_warning_is_no_reason_to_refuse_an_object() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {x: 1}\n";
    let manifests = read_text("x.yaml", text);
    assert_eq!((manifests.objects.len(), manifests.has_errors()), (1, false));
    assert_eq!(manifests.problems[0].severity, Severity::Warning);
}

#[test]
fn equal_texts_have_equal_contents_and_others_have_not() {
    let contents = |file, text| read_text(file, text).contents;
    assert_eq!(contents("a", "x: 1"), contents("a", "x: 1"));
    assert_ne!(contents("a", "x: 1"), contents("a", "x: 2"));
    assert_ne!(contents("a", "x: 1"), contents("b", "x: 1"));
}

#[test]
fn too_many_objects_and_problems_are_cut_off_and_said_to_be() {
    let many = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}\n"
        .repeat(OBJECTS_MAX + 1);
    let manifests = read_text("x.yaml", &many);
    assert_eq!(manifests.problems.len(), PROBLEMS_MAX);
    assert_eq!(
        manifests.problems[0].to_string(),
        format!("configuration: {} objects, more than {OBJECTS_MAX}", OBJECTS_MAX + 1)
    );
    assert!(told(&manifests.problems[PROBLEMS_MAX - 1]).ends_with("more problems like these"));

    let fields: Vec<String> = (0..1_000).map(|n| format!("x{n}: 1")).collect();
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{}}}",
        fields.join(", ")
    );
    let problems = read_text("x.yaml", &text).problems;
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100].message, "more than 100 problems, the rest untold");
}
