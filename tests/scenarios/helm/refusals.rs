//! Values that the chart refuses.

use super::{Helm, read};

/// Lists are taken whole, so whoever changes one key of a listener gives all of them.
const LISTENER: &str = "config.listeners[0].addresses[0]=0.0.0.0:8443,config.listeners[0].tls.x=1";
const SECOND: &str = "config.listeners[1].addresses[0]=0.0.0.0:8444,config.listeners[1].tls.x=1";

/// Values on top of a trial's, and what the chart says to them.
const REFUSED: &[(&[&str], &str)] = &[
    (&["config.listeners=null"], "config.listeners is empty: the gateway needs a listener"),
    (
        &["config.listeners[0].addresses[0]=0.0.0.0:443", "config.listeners[0].tls.x=1"],
        "can't have a port below 1024; take 8443, and service.port for what clients see",
    ),
    (&["registry.enabled=false"], "config.upstreams is empty: name the registry, or set registry.enabled for a trial"),
    (&["config.policy=/elsewhere.yaml"], "put the policy itself into the value policy"),
    (&["config.health.address=null"], "config.health.address is off: Kubernetes needs it for its probes"),
    (&["config.health.address=127.0.0.1:9090"], "is on loopback, where Kubernetes can't reach it: take 0.0.0.0:9090"),
    (
        &["config.health.address=0.0.0.0:80"],
        "config.health.address: 0.0.0.0:80: the gateway isn't root and needs a port",
    ),
    (
        &["config.health.address=[::]:8443"],
        "config.health.address: [::]:8443: config.listeners[0] has this port already; take another",
    ),
    (&["service.externalTrafficPolicy=Local"], "service.externalTrafficPolicy is for NodePort and LoadBalancer"),
    (
        &["service.loadBalancerSourceRanges[0]=10.0.0.0/8"],
        "do nothing with service.type ClusterIP: set it to LoadBalancer, or keep others away with networkPolicy.clients",
    ),
    (
        &["config.drain.grace=90s"],
        "terminationGracePeriodSeconds is 90, but config.drain.grace (90s) and preStopSeconds (5s) may take 95s",
    ),
    (&["server.certificate.enabled=true"], "server.secretName and server.certificate.enabled: choose one"),
    (&["server.secretName="], "the server needs a certificate: set server.secretName (tls.crt, tls.key), or"),
    (&["server.secretName=", "server.certificate.enabled=true"], "server.certificate.issuerRef.name: who issues it?"),
    (
        &["server.secretName=", "server.certificate.enabled=true", "server.certificate.issuerRef.name=x"],
        "server.certificate.dnsNames: by which name do clients reach the registry?",
    ),
    (&["clientCA.secretName="], "whom shall the gateway let in? Set clientCA.secretName"),
    (&["clientCA.configMapName=x"], "clientCA: choose one of secretName, configMapName and certificate.enabled"),
    (&["clientCA.secretName=", "clientCA.certificate.enabled=true"], "clientCA.certificate.issuerRef.name: who issues"),
    (&["crl.configMapName=a", "crl.secretName=b"], "crl: choose one of configMapName and secretName"),
    (&["crl.configMapName=a", "config.revocation.crls[0].file=b"], "name the lists in one place"),
    (&["crl.configMapName=a"], "crl.none says that there is no revocation list, and one is named: choose one"),
    (
        &["crl.none=false"],
        "who is revoked? Name the clients' list in crl.configMapName, crl.secretName or crl.urls; or say",
    ),
    (
        &[LISTENER, "config.listeners[0].name=a_b"],
        "config.listeners[0].name: a_b: Kubernetes takes no port of the name",
    ),
    (&[LISTENER, "config.listeners[0].name=Health"], r#"its port would be called "health" as that of config.health"#),
    (&[LISTENER, SECOND, "config.listeners[1].addresses[0]=0.0.0.0:443"], "service.port is 443 already, and leads to"),
    (
        &[LISTENER, "config.listeners[0].addresses[1]=[::]:8444"],
        "config.listeners[0].addresses: [::]:8444: a listener has one port here, 8443; make another listener",
    ),
    (&["kind=DaemonSet", "autoscaling.enabled=true"], "a DaemonSet has one gateway on each node, and nothing to scale"),
    (
        &["updateStrategy=OnDelete"],
        "updateStrategy is for kind: DaemonSet; a Deployment replaces its Pods without a gap",
    ),
    (&["hostPort=443"], "hostPort is for kind: DaemonSet; two Pods of a Deployment can't share a node's port"),
    (&["autoscaling.enabled=true", "autoscaling.minReplicas=20"], "autoscaling: minReplicas is more than maxReplicas"),
    (&["autoscaling.enabled=true", "resources.requests=null"], "autoscaling.enabled needs resources.requests.cpu"),
    (&["serviceMonitor.enabled=true", "podMonitor.enabled=true"], "choose one, or everything is counted twice"),
];

/// More of what the same refusals are for.
const AGAIN: &[(&[&str], &str)] = &[
    (&["config.health.address=[::1]:9090"], "config.health.address is on loopback"),
    (&["config.health.address=[0:0:0:0:0:0:0:1]:9090"], "config.health.address is on loopback"),
    (&["config.health.address=localhost:9090"], "config.health.address is on loopback"),
    (&["config.health.address=somewhere"], "config.health.address: somewhere: the gateway isn't root"),
    (&["config.admin.address=127.0.0.1:91"], "config.admin.address: 127.0.0.1:91: the gateway isn't root"),
    (&["config.admin.address=127.0.0.1:9090"], "config.admin.address: 127.0.0.1:9090: config.health has this port"),
    (&["config.admin.address=127.0.0.1:8443"], "config.admin.address: 127.0.0.1:8443: config.listeners[0] has this"),
    (&["service.loadBalancerIP=192.0.2.1", "service.type=NodePort"], "do nothing with service.type NodePort"),
    (&["config.health.address=0.0.0.0:9091"], "config.admin.address: 127.0.0.1:9091: config.health has this"),
    (&[LISTENER, "config.listeners[0].name=443"], r#"Kubernetes takes no port of the name "443""#),
    (&[LISTENER, "config.listeners[0].name=a--b"], r#"Kubernetes takes no port of the name "a--b""#),
    (
        &[LISTENER, SECOND, "config.listeners[0].name=registry-internal", "config.listeners[1].name=registry-interns"],
        r#"config.listeners[1].name: its port would be called "registry-intern" as that of config.listeners[0]"#,
    ),
    (&[LISTENER, SECOND, "config.listeners[1].name=registry"], r#"would be called "registry" as that of"#),
];

#[test]
fn values_that_cannot_work_are_refused_with_what_to_do() {
    let Some(helm) = Helm::found() else { return };
    let written = read("helm/portcullis/templates/refusals.yaml").matches("{{ fail ").count();
    assert_eq!(written, REFUSED.len(), "each refusal of the chart has its line here");
    let by_schema: &[(&[&str], &str)] = &[
        (&["replicaCount=3"], "additional properties 'replicaCount' not allowed"),
        (&["server.secret=x"], "additional properties 'secret' not allowed"),
        (&["kind=StatefulSet"], "value must be one of 'Deployment', 'DaemonSet'"),
        (&["podDisruptionBudget.maxUnavailable=0%"], "'0%' does not match pattern"),
        (&["replicas=0"], "minimum: got 0, want 1"),
        (&["config.drain.grace=soon"], "does not match pattern"),
        (&["crl.urls[0]=ftp://x"], "does not match pattern"),
    ];
    for (sets, why) in REFUSED.iter().chain(AGAIN).chain(by_schema) {
        let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let refused = helm.run(&["template", "r"], "trial", &more);
        assert!(!refused.success() && refused.all().contains(why), "{sets:?}: {why:?} is not in\n{}", refused.all());
    }
    // As long as the drain is too short by a second.
    for (seconds, accepted) in [("65", false), ("66", true)] {
        let set = format!("terminationGracePeriodSeconds={seconds}");
        assert_eq!(helm.run(&["template", "r"], "trial", &["--set", &set]).success(), accepted, "{seconds}");
    }
}
