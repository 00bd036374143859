# SPDX-License-Identifier: Apache-2.0
#
# Who gets resources unless the operator says otherwise: an attester all of whose parts
# were appraised as affirming. What is asked for (data.plugin, data["resource-path"],
# data.query) does not matter here; a policy of your own can tell resources apart.

package policy

import rego.v1

default allow := false

allow if {
	is_object(input.submods)
	count(input.submods) > 0
	every submod in input.submods {
		submod["ear.status"] == "affirming"
	}
}
