"""Pages and card sections: the only place that draws charts."""
