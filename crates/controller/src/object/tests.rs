use super::Kind;

#[test]
fn plurals_are_those_of_the_definitions() {
    let plurals = Kind::ALL.map(Kind::plural).join(" ");
    assert_eq!(
        plurals,
        "gatewayclasses gateways httproutes referencegrants llmroutes virtualservices destinationrules \
         inferencepools inferencemodels inferencemodelrewrites inferenceobjectives \
         inferencepolicies services pods workloadentries asmmeshconfigs"
    );
}
