# SPDX-License-Identifier: Apache-2.0
"""cocos-cli: everything that an owner of programs, data or machines does by hand."""

from cocos.cli import _common as common
from cocos.cli import (
    cocos_agents,
    cocos_computation,
    cocos_doctor,
    cocos_encrypt,
    cocos_env,
    cocos_image,
    cocos_keys,
    cocos_result,
    cocos_secret,
)

NAME = "cocos-cli"

app = common.make_app("Encrypt programs and data, start agents that run them, read their results.")

app.command("keys")(cocos_keys.keys)
app.command("encrypt")(cocos_encrypt.encrypt)
app.add_typer(cocos_agents.app, name="agent")
app.add_typer(cocos_computation.app, name="computation")
app.command("result")(cocos_result.result)
app.command("checksum")(cocos_result.checksum)
app.command("create-vm")(cocos_agents.create)  # names of the original
app.command("remove-vm")(cocos_agents.remove)
app.command("checksum")(cocos_result.checksum)
app.command("result")(cocos_result.result)
app.command("env")(cocos_env.env)
app.add_typer(cocos_secret.app, name="secret")
app.add_typer(cocos_image.app, name="image")
app.command("doctor")(cocos_doctor.doctor)


@app.callback()
def configure(*, log_level: common.LogLevel = "warning", debug: common.DebugFlag = False) -> None:
    """Send logs to standard error; standard output is for results."""
    common.configure_logs(log_level, debug=debug)


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
