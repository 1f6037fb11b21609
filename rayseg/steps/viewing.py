"""The job that serves a page of all images of a run, on this machine alone."""

from rayseg.config import ViewConfig
from rayseg.progress import activity, tell_results
from rayseg.report.view import Site, ViewedRun, ViewServer
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.store import Folder

SIGINT_STATUS = 130


def view(config: ViewConfig, engine: Engine) -> Outcome:
    """Says the page's address and serves it until Ctrl-C; reads the runs and writes nothing.

    Raises:
        FileNotFoundError: a run has no manifest.
        ValueError: a manifest is damaged.
        OSError: the port is taken.
    """
    del engine
    places = [config.run, *([config.beside] if config.beside else [])]
    site = Site([ViewedRun(Folder(place)) for place in places])
    site.prepare()
    with _server(site, config.port) as server, activity("serving") as shown:
        shown.note = "Ctrl-C ends it"
        tell_results([f"view: {server.address}"])
        try:
            server.serve_forever()
        except KeyboardInterrupt as ending:
            if getattr(ending, "status", SIGINT_STATUS) != SIGINT_STATUS:  # SIGTERM has its line
                raise
        finally:
            site.close()
    return Outcome()


def _server(site: Site, port: int) -> ViewServer:
    try:
        return ViewServer(site, port)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(
            f"port {port} cannot be served on: {why}; leave --port out to take a free one"
        ) from None
