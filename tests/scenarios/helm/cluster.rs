//! What a cluster makes of the manifests: nodes, networks, and what is there already.

use super::{Helm, text, workload};

#[test]
fn nodes_without_a_zone_get_pods_however_strictly_nodes_are_shared_out() {
    let Some(helm) = Helm::found() else { return };
    let documents = helm.render("trial", &["--set", "topologySpread.whenUnsatisfiable=DoNotSchedule"]);
    let spread = &workload(&documents)["spec"]["template"]["spec"]["topologySpreadConstraints"];
    let rules = spread.as_array().expect("constraints").iter();
    let rules: Vec<_> = rules.map(|rule| (text(&rule["topologyKey"]), text(&rule["whenUnsatisfiable"]))).collect();
    let wanted = [("kubernetes.io/hostname", "DoNotSchedule"), ("topology.kubernetes.io/zone", "ScheduleAnyway")];
    assert_eq!(rules, wanted.map(|(key, rule)| (key.to_owned(), rule.to_owned())));
}
