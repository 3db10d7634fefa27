//! `tokenweir get`: objects with their status, from a running gateway.

use controller::Kind;
use serde_json::{Value, json};

use crate::{
    args::{GetArgs, Output},
    fetch::ask_admin,
    outcome::{Failed, Outcome, say, say_error},
};

pub(crate) fn run(args: &GetArgs) -> Outcome {
    let kind = kind(&args.kind)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::run)?;
    let objects = runtime.block_on(objects(args, kind))?;
    match (&args.name, objects.as_slice()) {
        (Some(name), []) => Err(Failed::Run(format!("no {kind} is called {name:?}"))),
        (Some(_), [object]) if args.output != Output::Table => print(object, args.output),
        (_, objects) if args.output == Output::Table => {
            if objects.is_empty() {
                say_error(&format!("there is no {kind}"));
            } else {
                table(objects);
            }
            Ok(())
        }
        (_, objects) => {
            print(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }), args.output)
        }
    }
}

/// What people call kinds besides their names: as kubectl does.
const SHORT: [(&str, &str); 10] = [
    ("infpool", "InferencePool"),
    ("gw", "Gateway"),
    ("vs", "VirtualService"),
    ("dr", "DestinationRule"),
    ("we", "WorkloadEntry"),
    ("svc", "Service"),
    ("po", "Pod"),
    ("gc", "GatewayClass"),
    ("gtw", "Gateway"),
    ("refgrant", "ReferenceGrant"),
];

/// The kind of that name, in any case, singular or plural.
fn kind(asked: &str) -> Result<Kind, Failed> {
    let asked_lower = asked.to_ascii_lowercase();
    let short = SHORT.iter().find(|(short, _)| *short == asked_lower);
    let wanted = short.map_or_else(|| asked_lower.clone(), |(_, name)| name.to_ascii_lowercase());
    let is = |kind: &Kind| {
        let name = kind.name().to_ascii_lowercase();
        wanted == name || wanted == kind.plural()
    };
    Kind::ALL.into_iter().find(is).ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        Failed::usage(format!("no kind is called {asked:?}; use one of {names}"))
    })
}

async fn objects(args: &GetArgs, kind: Kind) -> Result<Vec<Value>, Failed> {
    let kind_name = kind.name().to_owned();
    let asked = [
        ("kind", Some(&kind_name)),
        ("name", args.name.as_ref()),
        ("namespace", args.namespace.as_ref()),
    ];
    let asked =
        asked.iter().filter_map(|(key, value)| Some(format!("{key}={}", encoded((*value)?))));
    let path = format!("/objects?{}", asked.collect::<Vec<_>>().join("&"));
    ask_admin(&args.admin, &path).await
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn print(value: &Value, output: Output) -> Outcome {
    let text = if output == Output::Yaml {
        serde_saphyr::to_string(value).map_err(Failed::run)?
    } else {
        serde_json::to_string_pretty(value).map_err(Failed::run)?
    };
    say(text.trim_end());
    Ok(())
}

fn table(objects: &[Value]) {
    let mut rows =
        vec![["NAMESPACE", "NAME", "ACCEPTED", "RESOLVEDREFS", "REASON"].map(str::to_owned)];
    rows.extend(objects.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   "));
        say(format!("{}{}", cells.collect::<String>(), row[4]).trim_end());
    }
}

fn row(object: &Value) -> [String; 5] {
    let conditions = conditions(object);
    let status = |name: &str| {
        let found = conditions.iter().find(|condition| condition["type"] == name);
        found.and_then(|condition| condition["status"].as_str()).unwrap_or("-").to_owned()
    };
    let bad = conditions.iter().find(|condition| condition["status"] != "True");
    let reason = bad.map_or_else(String::new, |condition| {
        let text = |key: &str| condition[key].as_str().unwrap_or_default();
        format!("{}: {}", text("reason"), text("message"))
    });
    let meta = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    [meta("namespace"), meta("name"), status("Accepted"), status("ResolvedRefs"), reason]
}

/// Conditions in whichever shape the object's version has them.
fn conditions(object: &Value) -> Vec<Value> {
    let status = &object["status"];
    let parents =
        ["parents", "parent", "ancestors"].into_iter().find_map(|key| status[key].as_array());
    let of_parents = parents.map(|parents| {
        parents.iter().filter_map(|parent| parent["conditions"].as_array()).flatten().cloned()
    });
    match of_parents {
        Some(conditions) => conditions.collect(),
        None => status["conditions"].as_array().cloned().unwrap_or_default(),
    }
}
