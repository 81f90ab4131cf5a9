"""The conformance kit: every rule of `smoothcluster.backend` as a test, for any backend.

`suite.BackendConformance` joins the rules of the other modules here; `kit` has the hooks that a backend's test class
provides. A backend's author subclasses `smoothcluster.testing.BackendConformance`.
"""
