"""A double of the Kubernetes API server: what a controller and its user see of it.

It answers as a real server did when its answers were recorded: list and watch with resource
versions, bookmarks, selectors, 410 inside the stream; the status subresource and generations;
conflicts of resource versions and of field managers; kinds that come and go with their definitions,
their schemas enforced but for CEL rules; Leases; RBAC as bound by stored roles. Every request is in
an audit log. It can be stopped, paused, restarted, compacted and made to refuse.

It has no controllers: nothing makes Pods of a Deployment, nothing collects garbage. Tests do what a
kubelet would. Where it and a real server disagree, it is wrong.
"""

from .server import ApiServer
from .store import AuditEntry

__all__ = ["ApiServer", "AuditEntry"]
