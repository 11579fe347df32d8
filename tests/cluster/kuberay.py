"""The fields of KubeRay's ray.io/v1 that the manifests use, and the rules its operator applies to them.

Written after the API reference of KubeRay 1.7.0 (docs/reference/api.md of ray-project/kuberay). Strict: a field that is
not here is an error, so a new one is looked up there first. Pod templates are checked with Kubernetes' own schema.
"""

# ruff: noqa: N815 (their names)

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Labels = dict[str, str]
PodTemplate = dict[str, Any]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Metadata(Strict):
    # Names of pods are made of it, and hold 63 characters in all.
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)


class AuthOptions(Strict):  # since 1.5.1
    mode: Literal["token", "disabled"]


class HeadGroup(Strict):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    rayStartParams: Labels
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: str
    replicas: NonNegative
    minReplicas: NonNegative
    maxReplicas: NonNegative
    rayStartParams: Labels
    template: PodTemplate

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        assert self.minReplicas <= self.replicas <= self.maxReplicas
        return self


class RayClusterSpec(Strict):
    rayVersion: str
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]

    @model_validator(mode="after")
    def _token_needs_ray_2_52(self) -> Self:
        assert tuple(map(int, self.rayVersion.split("."))) >= (2, 52, 0)
        return self


class RayJobSpec(Strict):
    entrypoint: str
    backoffLimit: NonNegative = 0
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: NonNegative = 0
    preRunningDeadlineSeconds: Positive | None = None  # since 1.6.0
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    submitterPodTemplate: PodTemplate | None = None
    clusterSelector: Labels | None = None
    rayClusterSpec: RayClusterSpec | None = None

    @model_validator(mode="after")
    def _operator_rules(self) -> Self:
        assert (self.clusterSelector is None) != (self.rayClusterSpec is None), "its own cluster or a selected one"
        assert not (self.clusterSelector and self.backoffLimit), "retries make new clusters: not with clusterSelector"
        assert self.shutdownAfterJobFinishes or not self.ttlSecondsAfterFinished, "the time is that until the shutdown"
        assert self.submitterPodTemplate is None or self.submissionMode == "K8sJobMode", "other modes have none"
        return self


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec
