use super::*;

fn read(yaml: &str, environment: &[(&str, &str)]) -> Result<TraceSettings, Vec<String>> {
    let raw: RawTraces = serde_saphyr::from_str(yaml).unwrap();
    let mut reader = Reader { file: "FILE".to_owned(), problems: Vec::new() };
    let settings = raw.read(&mut reader, |name| {
        environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    });
    if reader.problems.is_empty() { Ok(settings) } else { Err(reader.problems) }
}

#[test]
fn nothing_is_traced_unless_a_collector_is_named() {
    assert_eq!(read("{}", &[]), Ok(TraceSettings::default()));
    assert_eq!(TraceSettings::default().endpoint, None);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
    let off = [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")];
    for off in off {
        assert_eq!(read("{}", &[endpoint, off]).unwrap().endpoint, None);
    }
}

#[test]
fn the_environment_is_read_as_opentelemetry_says() {
    let settings = read(
        "{}",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_SERVICE_NAME", "edge"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ],
    )
    .unwrap();
    assert_eq!(settings.endpoint.as_deref(), Some("http://collector:4318/v1/traces"));
    assert_eq!(settings.service_name, "edge");
    assert_eq!(settings.sampling, Sampling { parent_based: false, ratio: 0.25 });
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/spans");
    let settings = read("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"), own]);
    assert_eq!(settings.unwrap().endpoint.as_deref(), Some("http://traces:1/spans"));
}

#[test]
fn the_file_wins_over_the_environment() {
    let file =
        "endpoint: http://a:1/v1/traces\nsampler: parentbased_always_off\nservice-name: file";
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2"), ("OTEL_SERVICE_NAME", "environment")];
    let settings = read(file, &environment).unwrap();
    assert_eq!(settings.endpoint.as_deref(), Some("http://a:1/v1/traces"));
    assert_eq!(settings.service_name, "file");
    assert_eq!(settings.sampling, Sampling { parent_based: true, ratio: 0.0 });
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let problems = read(
        "endpoint: https://collector\nsampler: sometimes\nsampler-ratio: 2",
        &[("OTEL_TRACES_SAMPLER_ARG", "half"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")],
    )
    .unwrap_err();
    let beginnings = [
        "environment: OTEL_EXPORTER_OTLP_ENDPOINT: \"collector:4318\": expected the http:// address",
        "environment: OTEL_TRACES_SAMPLER_ARG: \"half\": expected a number from 0 to 1",
        "FILE:3: traces.sampler-ratio: \"2\": expected a number from 0 to 1",
        "FILE:1: traces.endpoint: \"https://collector\": expected the http:// address",
        "FILE:2: traces.sampler: \"sometimes\": expected always_on, ",
    ];
    assert_eq!(problems.len(), beginnings.len(), "{problems:#?}");
    for (problem, beginning) in problems.iter().zip(beginnings) {
        assert!(problem.starts_with(beginning), "{problem}");
    }
}

#[test]
fn what_is_shown_has_no_key() {
    let settings = read("endpoint: http://user:sk-one@collector:4318/v1/traces?key=sk-two", &[]);
    let shown = serde_json::to_value(RawTraces::shown(&settings.unwrap())).unwrap();
    assert_eq!(shown["endpoint"], "http://collector:4318/v1/traces");
}
