"""All images of a run, looked at in a browser: what is served, and the server on this machine."""

from rayseg.report.view.runs import ViewedRun
from rayseg.report.view.server import ViewServer
from rayseg.report.view.site import Site
