"""The manifests, against the schemas of Kubernetes and KubeRay, and against what the commands in them need."""

import shlex
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from tests.cluster.files import CLUSTER, pinned, read_documents, training_config
from tests.cluster.kuberay import RayCluster, RayClusterSpec, RayJob
from zskt_dist import __version__
from zskt_dist.config.shipped import shipped

OLDEST_KUBERNETES = "1.28"
DOCUMENTS = [
    pytest.param(document, id=f"{path.name}-{document['kind']}-{document['metadata']['name']}")
    for path in sorted((CLUSTER / "kubernetes").glob("*.yaml"))
    for document in read_documents(path)
]


def _named(kind: str) -> dict[str, dict[str, Any]]:
    found = [parameter.values[0] for parameter in DOCUMENTS]
    return {document["metadata"]["name"]: document for document in found if document["kind"] == kind}


CLUSTERS = {name: RayCluster.model_validate(document) for name, document in _named("RayCluster").items()}
JOBS = {name: RayJob.model_validate(document) for name, document in _named("RayJob").items()}
TRAININGS = {name: job for name, job in JOBS.items() if "zskt_dist.train " in job.spec.entrypoint}
RAY_SPECS = {name: cluster.spec for name, cluster in CLUSTERS.items()} | {
    name: job.spec.rayClusterSpec for name, job in JOBS.items() if job.spec.rayClusterSpec
}


def _pod_templates() -> Iterator[Any]:
    for name, spec in RAY_SPECS.items():
        yield pytest.param(spec.headGroupSpec.template, id=f"{name}-head")
        for group in spec.workerGroupSpecs:
            yield pytest.param(group.template, id=f"{name}-{group.groupName}")
    for name, job in JOBS.items():
        if job.spec.submitterPodTemplate:
            yield pytest.param(job.spec.submitterPodTemplate, id=f"{name}-submitter")
    for name, deployment in _named("Deployment").items():
        yield pytest.param(deployment["spec"]["template"], id=name)


def _pod(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "PodTemplate", "template": template}


def _claims(template: dict[str, Any]) -> set[str]:
    return {volume["persistentVolumeClaim"]["claimName"] for volume in template["spec"].get("volumes", ())}


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_kubernetes_accepts_the_document(document: dict[str, Any], version: str) -> None:
    if document["apiVersion"] != "ray.io/v1":  # those are validated by the model, at import
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("template", _pod_templates())
@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_kubernetes_accepts_the_pod(template: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(_pod(template), version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    """The schemas are strict, for both halves of a manifest."""
    (good,) = _named("RayCluster").values()
    with pytest.raises(ValidationError, match="authOption"):
        RayCluster.model_validate(good | {"spec": good["spec"] | {"authOption": {"mode": "token"}}})
    pod = good["spec"]["headGroupSpec"]["template"]
    pod = pod | {"spec": pod["spec"] | {"securityContexts": {}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="securityContexts"):
        kubernetes_validate.validate(_pod(pod), OLDEST_KUBERNETES, strict=True)


@pytest.mark.parametrize("template", _pod_templates())
def test_pods_are_restricted(template: dict[str, Any]) -> None:
    """The Pod Security Standard that the namespace enforces, and no credentials for the Kubernetes API."""
    spec = template["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("template", _pod_templates())
def test_pods_use_the_image_of_this_version(template: dict[str, Any]) -> None:
    for container in template["spec"]["containers"]:
        name, _, tag = container["image"].rpartition(":")
        assert name == "registry.example.com/zskt-dist"
        assert tag == f"{__version__}-ray{pinned('ray')}"


@pytest.mark.parametrize("template", _pod_templates())
def test_volumes_are_claims_that_exist(template: dict[str, Any]) -> None:
    assert _claims(template) <= _named("PersistentVolumeClaim").keys()
    (container,) = template["spec"]["containers"]
    assert {mount["name"] for mount in container.get("volumeMounts", ())} == {
        volume["name"] for volume in template["spec"].get("volumes", ())
    }


@pytest.mark.parametrize("spec", RAY_SPECS.values(), ids=RAY_SPECS)
def test_labels_are_not_those_by_which_the_operator_finds_pods(spec: RayClusterSpec) -> None:
    for group in (spec.headGroupSpec, *spec.workerGroupSpecs):
        assert group.template["metadata"] == {"labels": {"app.kubernetes.io/part-of": "zskt"}}


@pytest.mark.parametrize("spec", RAY_SPECS.values(), ids=RAY_SPECS)
def test_ray_asks_for_a_token_and_is_the_pinned_one(spec: RayClusterSpec) -> None:
    assert spec.authOptions.mode == "token"
    assert spec.rayVersion == pinned("ray")
    assert spec.headGroupSpec.serviceType == "ClusterIP"


@pytest.mark.parametrize("spec", RAY_SPECS.values(), ids=RAY_SPECS)
def test_all_nodes_are_there_from_the_beginning_and_training_keeps_off_the_head(spec: RayClusterSpec) -> None:
    assert spec.headGroupSpec.rayStartParams == {"num-cpus": "0"}
    for group in spec.workerGroupSpecs:
        assert group.minReplicas == group.replicas == group.maxReplicas


@pytest.mark.parametrize("spec", RAY_SPECS.values(), ids=RAY_SPECS)
def test_all_nodes_see_the_shared_storage(spec: RayClusterSpec) -> None:
    (claim,) = (
        claim for claim in _named("PersistentVolumeClaim").values() if claim["spec"]["accessModes"] == ["ReadWriteMany"]
    )
    for group in (spec.headGroupSpec, *spec.workerGroupSpecs):
        (container,) = group.template["spec"]["containers"]
        assert _claims(group.template) == {claim["metadata"]["name"]}
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/shared"]


@pytest.mark.parametrize("job", TRAININGS.values(), ids=TRAININGS)
def test_a_new_cluster_continues_the_run(job: RayJob) -> None:
    """What resuming needs: a next try, and a command that means the same run on storage that stays."""
    config = training_config(shlex.split(job.spec.entrypoint))
    assert job.spec.backoffLimit > 0
    assert job.spec.shutdownAfterJobFinishes
    assert config.name
    assert config.checkpoint.every
    assert config.runs_dir.startswith("/shared/")
    assert config.data.root.startswith("/shared/")


@pytest.mark.parametrize("job", TRAININGS.values(), ids=TRAININGS)
def test_the_workers_of_the_command_fit_the_cluster(job: RayJob) -> None:
    config = training_config(shlex.split(job.spec.entrypoint))
    assert config.launch.kind == "ray"
    assert job.spec.rayClusterSpec
    room = 0
    for group in job.spec.rayClusterSpec.workerGroupSpecs:
        limits = group.template["spec"]["containers"][0]["resources"]["limits"]
        each = int(limits["cpu"]) // (config.launch.cpus_per_worker or 1)
        if config.device == "cuda":
            each = min(each, int(limits.get("nvidia.com/gpu", 0)))
        room += group.replicas * each
    assert config.launch.workers == room, "one that does not fit waits or fails, room for more is paid for"


@pytest.mark.parametrize("name", [name for name in JOBS if name not in TRAININGS])
def test_sweeps_are_shipped_and_name_a_cluster_that_does(name: str) -> None:
    spec = JOBS[name].spec
    assert spec.clusterSelector
    assert spec.clusterSelector["ray.io/cluster"] in CLUSTERS
    python, option, module, config_option, config, *overrides = shlex.split(spec.entrypoint)
    assert (python, option, module, config_option) == ("python", "-m", "zskt_dist.sweep", "--config")
    assert config in shipped()
    assert all("=" in override for override in overrides)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_jobs_report_to_the_server_that_answers_them(job: RayJob) -> None:
    (uri,) = (word.partition("=")[2] for word in job.spec.entrypoint.split() if word.startswith("tracking.uri="))
    service, server = _named("Service")["mlflow"], _named("Deployment")["mlflow"]["spec"]["template"]
    assert uri == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert server["metadata"]["labels"] == service["spec"]["selector"]
    options = dict(argument.split("=", 1) for argument in server["spec"]["containers"][0]["args"])
    # the second one is that of a port-forward; MLflow compares names without a * letter by letter
    assert options["--allowed-hosts"].split(",") == [uri.removeprefix("http://"), "localhost:5000"]


def test_mlflow_keeps_its_database_off_the_shared_storage() -> None:
    template = _named("Deployment")["mlflow"]["spec"]["template"]
    (claim,) = _claims(template)
    assert _named("PersistentVolumeClaim")[claim]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert _named("Deployment")["mlflow"]["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("template", _pod_templates())
def test_every_pod_is_behind_a_policy_that_closes_both_ways(template: dict[str, Any]) -> None:
    labels = template["metadata"]["labels"].items()
    policies = [
        policy["spec"]
        for policy in _named("NetworkPolicy").values()
        if policy["spec"]["podSelector"]["matchLabels"].items() <= labels
    ]
    assert [set(policy["policyTypes"]) for policy in policies] == [{"Ingress", "Egress"}]


def test_policies_admit_nobody_from_outside() -> None:
    for policy in _named("NetworkPolicy").values():
        for rule in (*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())):
            peers = rule.get("from", []) + rule.get("to", [])
            assert peers, "a rule without peers admits everybody"
            assert all("ipBlock" not in peer and peer.get("podSelector", {}).get("matchLabels") for peer in peers)
