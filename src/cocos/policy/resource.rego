# SPDX-License-Identifier: Apache-2.0
#
# Who gets resources unless the operator says otherwise: a machine (cpu0) all of whose parts
# were appraised as affirming; a device alone is none, whoever holds it. What is asked for
# (data.plugin, data["resource-path"], data.query) does not matter here; a policy of your own
# can tell resources apart.

package policy

import rego.v1

default allow := false

allow if {
	is_object(input.submods)
	is_object(input.submods.cpu0)
	every submod in input.submods {
		submod["ear.status"] == "affirming"
	}
}
