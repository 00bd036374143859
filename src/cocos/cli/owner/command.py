# SPDX-License-Identifier: Apache-2.0
"""cocos-cli: everything that an owner of programs, data or machines does by hand."""

from cocos.cli import _common as common
from cocos.cli.owner import (
    agents,
    collateral,
    computation,
    doctor,
    encrypt,
    env,
    evidence,
    image,
    keys,
    policy,
    result,
    secret,
)

NAME = "cocos-cli"

app = common.make_app("Encrypt programs and data, start agents that run them, read their results.")

app.command("keys")(keys.keys)
app.command("encrypt")(encrypt.encrypt)
app.command("policy")(policy.policy)
app.add_typer(agents.app, name="agent")
app.add_typer(computation.app, name="computation")
app.command("result")(result.result)
app.command("checksum")(result.checksum)
app.command("create-vm")(agents.create)  # names of the original
app.command("remove-vm")(agents.remove)
app.command("env")(env.env)
app.add_typer(secret.app, name="secret")
app.add_typer(collateral.app, name="collateral")
app.add_typer(evidence.app, name="evidence")
app.add_typer(image.app, name="image")
app.command("doctor")(doctor.doctor)


@app.callback()
def configure(*, log_level: common.LogLevel = "warning", debug: common.DebugFlag = False) -> None:
    """Send logs to standard error; standard output is for results."""
    common.configure_logs(log_level, debug=debug)


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
