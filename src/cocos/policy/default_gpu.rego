# SPDX-License-Identifier: Apache-2.0
#
# How evidence of GPUs is appraised unless the operator says otherwise; values as in
# default_cpu.rego. An unknown device is contraindicated.

package policy

import rego.v1

default hardware := 97

default executables := 33

default configuration := 36

trust_claims := {
	"instance-identity": 0,
	"configuration": configuration,
	"executables": executables,
	"file-system": 0,
	"hardware": hardware,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# --- sampledevice: the form of evidence without any proof ---

insecure_sample if {
	is_object(input.sampledevice)
	data.operator.insecure_allow_sample == true
}

hardware := 2 if insecure_sample

executables := 3 if insecure_sample

configuration := 2 if insecure_sample
