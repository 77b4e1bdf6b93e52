"""What only this companion needs: the measures, tables and figures of its notebooks. No part of the wheel."""
