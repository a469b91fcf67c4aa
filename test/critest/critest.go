// Package critest only pins the version of cri-tools whose conformance suite is run against us.
package critest

import _ "sigs.k8s.io/cri-tools/pkg/validate"
