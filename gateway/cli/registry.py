"""Commands about what is registered and what is being compiled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.output import FAILURE, GATE, USAGE, Json, Key, Url, document, fail, say, table
from gateway.cli.progress import NoProgress, compiling, uploading
from gateway.cli.tables import print_jobs, print_version

if TYPE_CHECKING:
    from gateway.client import Client

Name = Annotated[str, typer.Argument(help="Model name.")]
Version = Annotated[str | None, typer.Option("--version", help="Version number or alias (default: the newest).")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until every variant is built and judged.")]
MustImprove = Annotated[
    bool, typer.Option("--must-improve", help="With --wait: exit 5 unless a compiled variant passed the gate to serve.")
]


def client_at(url: str | None, key: str | None) -> Client:
    from gateway.client import Client

    return Client(url, key)


def register(
    name: Name,
    file: Annotated[Path, typer.Argument(help="ONNX file, or a zip or tar of one with its external data.")],
    samples: Annotated[Path | None, typer.Option(help="npz: one array per input, `labels` optional.")] = None,
    policy: Annotated[Path | None, typer.Option(help="JSON: objective, targets, techniques, gate, ...")] = None,
    wait: Wait = False,
    must_improve: MustImprove = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
) -> None:
    """Register a model. It answers within seconds; faster variants are built beside it and take over once proven."""
    for path in (file, samples, policy):
        if path is not None and not path.is_file():
            raise fail(f"there is no file {path}", USAGE)
    asked = None if policy is None else _policy(policy)
    with client_at(url, key) as client:
        with uploading(not no_progress) as progress:
            answer = client.register(name, file, samples=samples, policy=asked, progress=progress)
        version = answer["version"]
        say(f"{name} version {version} is registered (jobs {', '.join(answer['jobs'])})")
        if not (wait or must_improve):
            if as_json:
                document(answer)
            else:
                say(f"follow it with `forgeway jobs {answer['jobs'][-1]} --follow`, see it with `forgeway show {name}`")
            return
        _wait(client, name, version, must_improve, as_json, not no_progress)


def models(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List models with their versions and aliases."""
    with client_at(url, key) as client:
        found = client.models()
    if as_json:
        document({"models": found})
        return
    rows = [
        (
            model["name"],
            ", ".join(f"{version['version']} {version['status']}" for version in model["versions"]),
            ", ".join(f"{alias}={number}" for alias, number in model["aliases"].items()),
        )
        for model in found
    ]
    table(None, ["model", "versions", "aliases"], rows)
    if not found:
        say("nothing is registered yet: forgeway register NAME model.onnx --samples samples.npz")


def show(name: Name, version: Version = None, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Show a version: its signature and every variant tried, with verdict, reason and evidence."""
    with client_at(url, key) as client:
        facts = client.version(name, version or newest(client, name))
    if as_json:
        document(facts)
    else:
        print_version(facts)


def compile_again(
    name: Name,
    version: Version = None,
    target: Annotated[list[str] | None, typer.Option(help="Only for this target; may be repeated.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Only this recipe; may be repeated.")] = None,
    policy: Annotated[Path | None, typer.Option(help="JSON policy in place of the version's own.")] = None,
    wait: Wait = False,
    must_improve: MustImprove = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
) -> None:
    """Compile a version again, beside what serves."""
    asked = {
        "targets": target or None,
        "recipes": recipe or None,
        "policy": None if policy is None else _policy(policy),
    }
    with client_at(url, key) as client:
        number = version or newest(client, name)
        answer = client.compile(name, number, **{key: value for key, value in asked.items() if value is not None})
        say(f"jobs {', '.join(answer['jobs'])} compile {name} version {answer['version']}")
        if wait or must_improve:
            _wait(client, name, answer["version"], must_improve, as_json, not no_progress)
        elif as_json:
            document(answer)


def jobs(
    job: Annotated[str | None, typer.Argument(help="Job id (default: list them).")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the job's log until it ends.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
) -> None:
    """List compile jobs, or show, follow or cancel one."""
    if job is None and (follow or cancel):
        raise fail("name the job: `forgeway jobs ID --follow`", USAGE)
    with client_at(url, key) as client:
        if job is None:
            found = client.jobs()
        else:
            if cancel:
                client.cancel(job)
            if follow:
                for event in client.events(job):
                    if not no_progress:
                        at = time.strftime("%H:%M:%S", time.localtime(event.at))
                        say(f"{at} {event.step} {event.status} {event.text}")
            found = [client.job(job)]
    if as_json:
        document(found[0] if job is not None else {"jobs": found})
    else:
        print_jobs(found)
    if follow and found[0]["state"] != "succeeded":
        raise typer.Exit(FAILURE)


def targets(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List what the gateway can build for and run on, and why not."""
    with client_at(url, key) as client:
        facts = client.targets()
    if as_json:
        document(facts)
        return
    rows = [
        (
            target["name"],
            "yes" if target["available"] else f"no: {target['reason']}",
            ", ".join(target["precisions"]),
            "; ".join(f"{name}: {why}" for name, why in target["unavailable_precisions"].items()),
        )
        for target in facts["targets"]
    ]
    table(None, ["target", "available", "precisions", "not here"], rows)
    say(", ".join(f"{name}: {value}" for name, value in facts["hardware"].items()))


def alias(
    name: Name,
    alias_name: Annotated[
        str, typer.Argument(metavar="ALIAS", help="champion is what a request without version gets.")
    ],
    version: Annotated[str | None, typer.Argument(help="Version number it shall point at.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the alias.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make, move or remove an alias."""
    if (version is None) != delete:
        raise fail("give a version number, or --delete", USAGE)
    with client_at(url, key) as client:
        if version is None:
            client.delete_alias(name, alias_name)
            say(f"{name} has no alias {alias_name} any more")
        else:
            client.set_alias(name, alias_name, version)
            say(f"{name}@{alias_name} is version {version}")


def delete(
    name: Name,
    version: Annotated[str | None, typer.Option("--version", help="Only this version.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Unload and delete a model, or one version of it."""
    what = f"{name} version {version}" if version else f"{name} with all its versions"
    if not yes:
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    with client_at(url, key) as client:
        client.delete(name, version)
    say(f"{what} is deleted")


def newest(client: Client, name: str) -> str:
    """The number of the model's newest version."""
    versions = client.model(name)["versions"]
    if not versions:
        raise fail(f"{name} has no version any more: register one", 3)
    return str(versions[-1]["version"])


def _wait(client: Client, name: str, version: str, must_improve: bool, as_json: bool, progress: bool) -> None:
    with compiling(progress) as on_event:
        facts = client.wait(name, version, on_event=on_event)
    if as_json:
        document(facts)
    else:
        print_version(facts)
    if facts["status"] == "failed":
        raise fail(f"{name} version {version} failed: {facts['reason']}")
    improved = any(v["verdict"] == "serving" and v["id"] != "reference" for v in facts["variants"])
    if must_improve and not improved:
        raise fail(f"no compiled variant of {name} version {version} may serve; the reasons are above", GATE)


def _policy(path: Path) -> dict[str, Any]:
    import orjson

    try:
        policy = orjson.loads(path.read_bytes())
    except (orjson.JSONDecodeError, FileNotFoundError) as exc:
        raise fail(f"{path} is not a JSON policy: {exc}", USAGE) from None
    if not isinstance(policy, dict):
        raise fail(f"{path} must hold a JSON object", USAGE)
    return policy
