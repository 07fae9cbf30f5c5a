"""Commands that show what several rooms know: `nomoat status`, `nomoat up`, `nomoat page`."""
